"""Other secrets between Label Studio and us, while both serve. Safe to repeat: one that broke off is finished."""

from __future__ import annotations

from dataclasses import replace

from al_loop.connect import connect
from al_loop.context import Loop
from backend.credentials import change_credentials
from backend.label_studio.client import LabelStudio
from backend.rotation import begin_rotation, end_rotation


def rotate(loop: Loop, label_studio: LabelStudio) -> list[str]:
    """Replace what Label Studio sends us, and the token we send it; names of what was replaced.

    What Label Studio sends is replaced in three steps: new secrets, which our server takes beside the old ones as soon
    as the file has them; Label Studio is told; the old ones end. Raises what `connect` raises, and then both go on
    being good. A token that comes from the environment is not ours to replace.
    """
    home = loop.settings.home
    connect(replace(loop, credentials=begin_rotation(home)), label_studio)
    end_rotation(home)
    replaced = ["basic_password", "webhook_secret"]
    if not loop.settings.label_studio_token:
        change_credentials(home, lambda _known: {"label_studio_token": label_studio.new_token()})
        replaced.append("label_studio_token")
    return replaced
