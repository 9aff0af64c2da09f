"""The paper's own figures: Zhou et al. 2019, table of supermasks.

Best test accuracy in % over any prune percentage, mean of four or more runs. Only the column "DWR, signed const" and
the figures of the abstract (FC 86, Conv6 24 and 41) are confirmed by a second source.
"""

COLUMNS = ("mask, w_i", "mask, signed const", "learned, w_i", "learned, signed const", "DWR, w_i", "DWR, signed const",
           "trained weights")  # fmt: skip
PAPER = {
    "fc": (79.3, 86.3, 95.3, 96.4, 97.8, 98.0, 97.7),
    "conv2": (22.3, 37.4, 64.4, 66.3, 65.0, 66.0, 69.2),
    "conv4": (23.7, 39.7, 65.4, 66.2, 71.7, 72.5, 75.4),
    "conv6": (24.0, 41.0, 65.3, 65.4, 76.3, 76.5, 78.3),
}
