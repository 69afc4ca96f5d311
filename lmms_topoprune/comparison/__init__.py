"""Result files of lmms-eval side by side: paired intervals and tests, chance level beside retention."""
