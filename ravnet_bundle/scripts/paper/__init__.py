"""The paper's comparison: trains and evaluates all networks alike, and makes its tables and figures.

- All runs use the recipe of configs/train.json with configs/compare_train.json laid over it: the same scans, slices,
  augmentation, batches, optimiser, schedule, moving average and number of slices. Two runs of a fold differ only in the
  network, or in what configs/compare.json lists under "variants".
- Each scan is tested in one fold, by networks that have not seen its patient. Metrics are on each scan's own grid.
- The weights with the best validation Dice are kept, among moments that are the same for all.
"""
