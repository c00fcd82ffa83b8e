"""Who pays for a device's joules: hardware and model facts, priors of marginal energy, and the virtual-energy split."""
