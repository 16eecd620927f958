"""What is known of an image: fields, records, arrays and captions."""
