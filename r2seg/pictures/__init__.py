"""Pictures of cases: upright slices, contours of labels, contact sheets, charts, and what self-contained pages share.

What is shown, and in which words, is the work of the packages that use it: the data check, training, inference and evaluation.
"""
