"""The data check: what the cases of a config are, and everything that is wrong with them, before anything is trained."""
