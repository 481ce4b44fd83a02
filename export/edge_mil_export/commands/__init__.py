"""The commands of `edge-mil-export`, a file each."""
