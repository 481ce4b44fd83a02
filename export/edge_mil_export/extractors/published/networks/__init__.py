"""The networks that published weights are put into, and the positions of their patches."""
