"""What a window says about features: value counts, boundaries, vocabularies, rules, the feature configuration."""
