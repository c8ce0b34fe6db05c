"""The commands: `cellloop <verb>`. No logic lives here."""
