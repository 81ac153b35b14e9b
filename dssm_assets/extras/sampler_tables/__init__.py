"""Tables of the sampler's weights and of positive pairs, in the layout of other trainers."""
