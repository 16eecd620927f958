"""Where, when and by which sensor an image was taken: calibrated probabilities of candidates."""
