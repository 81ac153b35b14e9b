"""What was answered and shown: its log, variants that share the traffic, and the rates of what people took."""
