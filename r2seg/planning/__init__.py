"""From a folder of files to a config: what the files are, how a network for them is planned, and the commented YAML.

``init`` in init.py ties the parts together; ``r2seg init`` is its command.
"""
