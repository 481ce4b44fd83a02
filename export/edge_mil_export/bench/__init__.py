"""What `edge-mil bench` measures of exported models beside PyTorch."""
