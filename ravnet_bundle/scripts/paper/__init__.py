"""The paper's comparison: trains and evaluates all networks alike, and makes its tables and figures.

- All runs use the recipe of configs/train.json: the same seed, scans, slices, augmentation, batches, optimiser,
  schedule, moving average and number of slices. configs/compare.json lists what differs from train.json. Two runs
  differ only in the network (in Table 1 in the loss).
- The loss is the paper's Dice loss (section 3.1).
- Slices are 256 x 256 pixels of 1.5 mm: 384 mm show the whole body of every scan. Metrics are on each scan's own grid.
- The weights with the best validation Dice are kept, among moments that are the same for all: with the last weights a
  budget would favour networks that have converged but do not yet overfit. The test part chooses nothing.
"""
