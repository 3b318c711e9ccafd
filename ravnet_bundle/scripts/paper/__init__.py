"""The paper's comparison: every network trained and measured alike, its tables and figures made anew.

One recipe for all, that of configs/train.json: the same seed, scans, slices, augmentation, batches, optimiser, schedule
and moving average of the weights, for the same number of slices seen. What differs from train.json stands in
configs/compare.json, and only the network (or, for Table 1, the loss) differs between two runs. The loss is the paper's
Dice loss (section 3.1). Slices are 256 x 256 pixels of 1.5 mm: 384 mm show a whole body, whether a scan has 512 or 256
pixels a side, where patches of the scans' own pixels would show all of some and the middle of others. Figures are taken
on each scan's own grid all the same.

Weights are chosen as train.json chooses them: the best Dice on the validation part, among moments that are the same for
all. A budget that one network needs to converge is one with which another has begun to overfit: taking the last weights
would measure the budget as well as the network. The test part chooses nothing.
"""
