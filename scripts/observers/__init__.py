"""Looking at a study while it trains, as its users do: through commands and through the dashboard."""
