"""Every patch of lmms-eval, transformers and torch, and of what lmms-eval uses; none stands elsewhere.

`touched.TOUCHED` lists what these libraries do not promise, with the version it was made for and what breaks
without it. Every patch says in its docstring what goes wrong without it.
"""
