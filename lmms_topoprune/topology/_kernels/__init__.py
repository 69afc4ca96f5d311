"""The compiled parts (numba): neighbor search, homology of flag complexes, matrices over GF(2)."""
