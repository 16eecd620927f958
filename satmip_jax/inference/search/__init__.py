"""`satmip search`: queries over a file of embeddings, their ranking, and how results are shown."""
