"""Asks the server about pictures: python client.py http://127.0.0.1:8000 MODEL picture.jpg ...

Prints one JSON line a picture. Needs nothing but Python; from your own code call `ask`.
"""

import json
import struct
import sys
import urllib.error
import urllib.request
from pathlib import Path


def ask(address: str, model: str, pictures: list[bytes], timeout_s: float = 60.0) -> list[dict]:
    """One answer a picture, in their order: each output of the model by its name, a list where it has several values.

    Args:
        address: of the server, such as http://127.0.0.1:8000.
        model: its name.
        pictures: whole picture files (JPEG, PNG, WebP, ...), at most as many as the model's largest batch.
        timeout_s: for the whole request.

    Raises:
        RuntimeError: the server refused the request; the message is the server's. One bad picture refuses all of a request.
    """
    content = b"".join(struct.pack("<I", len(picture)) + picture for picture in pictures)
    tensor = {"name": "image", "shape": [len(pictures), 1], "datatype": "BYTES"}
    header = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(content)}}]}).encode()
    request = urllib.request.Request(
        f"{address}/v2/models/{model}/infer",
        data=header + content,
        headers={"Inference-Header-Content-Length": str(len(header)), "Content-Type": "application/octet-stream"},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            outputs = json.load(answer)["outputs"]
    except urllib.error.HTTPError as error:
        with error:
            raise RuntimeError(json.load(error)["error"]) from error
    answers: list[dict] = [{} for _ in pictures]
    for output in outputs:
        width = len(output["data"]) // len(pictures)
        for place, told in enumerate(answers):
            values = output["data"][place * width : (place + 1) * width]
            told[output["name"]] = values[0] if output["name"] in ("decision", "probability") else values
    return answers


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    for name in sys.argv[3:]:
        (answered,) = ask(sys.argv[1], sys.argv[2], [Path(name).read_bytes()])
        sys.stdout.write(json.dumps({"picture": name, **answered}, ensure_ascii=False) + "\n")
