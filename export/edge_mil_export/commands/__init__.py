"""The subcommands of `edge-mil-export`, a file each; `head_options` are the options they share."""
