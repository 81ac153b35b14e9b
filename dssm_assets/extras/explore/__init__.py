"""`dssm-assets explore`: a page on this machine that shows the lists of single people, and why an item is in them or not."""
