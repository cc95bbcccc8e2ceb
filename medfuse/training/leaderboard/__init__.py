"""A leaderboard of fusions: one cohort in, every fusion's figures on the same patients out."""
