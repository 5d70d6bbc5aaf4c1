"""What a trained model says of genes: embeddings, expression, outputs to explain."""
