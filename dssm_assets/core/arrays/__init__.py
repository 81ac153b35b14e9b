"""Arrays that the whole library shares.

Belongs here: rows of different lengths, id look-up, rows of Arrow tables by number, hashes of text. Does not belong here:
the meaning of columns, torch.
"""
