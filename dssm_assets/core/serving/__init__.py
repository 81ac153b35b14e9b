"""What a serving bundle holds: the exported towers, how they are fed, the lists beside them."""
