"""`satmip export`: a model, or its image encoder, in the formats of other tools."""
