"""Where people's decisions about single pairs are kept, for whoever builds the dataset next."""
