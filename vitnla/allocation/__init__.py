"""How a budget of MACs becomes a rank per linear."""
