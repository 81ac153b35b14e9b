"""Recall without a model: the lists that a trained model has to beat."""
