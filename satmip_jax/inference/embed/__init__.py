"""`satmip embed`: images of any kind to a GeoParquet file of vectors, and its reader."""
