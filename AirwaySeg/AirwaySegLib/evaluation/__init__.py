"""Comparison of a predicted mask with a reference mask.

`metrics`: TLD, BD, Dice, clDice, leakage and others. `protocols`: ATM'22, AIIB23 and DeepTree, and the comparison by
one of them. `reference_parse`: the branches of the reference, as the published programs count them.
"""
