"""Networks that were exported as programs: ONNX files, run by onnxruntime, and torch's own, where they are trusted."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stages.encoder.backbone import Backbone
from stages.encoder.card import EncoderCard, Readout
from stages.encoder.registry import IMAGENET, Colour
from stages.encoder.weights import WeightsError
from stages.install import from_folder

CARD = ".json"
"""After the program's own name: the file beside it that says what the program does not."""
PX = 224
"""Side in pixels that a program which takes any is asked for where nothing else is said."""
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}


def load_exported(name: str, *, trust: bool = False) -> Backbone:
    """An exported program as an encoder.

    A file beside it, ``PROGRAM.json``, may say what the program cannot: ``mean``, ``std``, ``mpp``, ``px``, ``least``,
    ``step``, ``readout``, ``licence``, ``source``, ``revision``, ``output``; what is assumed instead is noted.

    Args:
        name: path of an ``.onnx`` or ``.pt2`` file; of several outputs, ``PATH#OUTPUT`` names the one that is meant.
        trust: run a ``.pt2``, whose loading runs whatever code its maker put there.

    Raises:
        WeightsError: it is not there, or no encoder of pictures.
        ImportError: onnxruntime is missing or broken.
    """
    path, output = Path(name.partition("#")[0]), name.partition("#")[2]
    if not path.is_file():
        raise WeightsError(f"{path} is not there; expected an exported encoder")
    said = said_beside(path)
    body: OnnxNetwork | ProgramNetwork
    if path.suffix.lower() == ".onnx":
        body = OnnxNetwork(path, output or str(said.get("output") or ""))
    elif path.suffix.lower() != ".pt2":
        raise WeightsError(
            f"{path} is TorchScript, which torch itself has given up and which may hold any code; export the network "
            "to ONNX (torch.onnx.export), or to .pt2 if you trust where it is from"
        )
    elif not trust:
        raise WeightsError(
            f"{path}: torch loads exported programs by unpickling, which runs whatever code is in the file; export "
            "the network to ONNX, or say that you trust it: trust=True"
        )
    else:
        body = ProgramNetwork(path)
    return _backbone(path, body, said)


class OnnxNetwork(nn.Module):
    """An ONNX network: (N, 3, S, S) float -> what it puts out, as it puts it out.

    Its session is opened where it is first needed, so that it can be copied and sent to other processes.
    """

    def __init__(self, path: Path, output: str = "") -> None:
        super().__init__()
        self.path = path.resolve()
        self._session: Any = None
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        if len(inputs) != 1:
            raise WeightsError(f"{path} takes {len(inputs)} inputs, {_names(inputs)}; expected one, of pictures")
        self.input, shape = inputs[0].name, list(inputs[0].shape)
        if inputs[0].type not in _TYPES:
            raise WeightsError(f"{path} takes {inputs[0].type}; expected {', '.join(_TYPES)}")
        self.dtype = _TYPES[inputs[0].type]
        if len(shape) != 4 or 3 not in (shape[1], shape[3]):
            raise WeightsError(
                f"{path} takes {tuple(shape)}; expected pictures of three colours, (N, 3, H, W) or (N, H, W, 3)"
            )
        self.channels_last = shape[1] != 3
        high, wide = shape[1:3] if self.channels_last else shape[2:]
        if isinstance(high, int) and isinstance(wide, int) and high != wide:
            raise WeightsError(f"{path} takes pictures of {wide} x {high} px; expected square ones")
        self.px = next((side for side in (high, wide) if isinstance(side, int)), None)
        self.batch = shape[0] if isinstance(shape[0], int) else None
        names = [value.name for value in outputs]
        if output and output not in names:
            raise WeightsError(f"{path} has no output {output!r}; it has {', '.join(names)}")
        if not output and len(names) > 1:
            raise WeightsError(f"{path} has the outputs {', '.join(names)}; say which is meant: {path}#{names[0]}")
        self.output = output or names[0]

    @property
    def session(self) -> Any:
        """What runs it."""
        if self._session is None:
            self._session = _session(self.path)
        return self._session

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}

    def forward(self, input: Tensor) -> Tensor:
        """(N, 3, S, S) -> its output for each, computed on the processor."""
        count, size = len(input), self.batch or len(input)
        parts = []
        for first in range(0, count, size):
            part = input[first : first + size]
            if len(part) < size:  # it takes no fewer
                part = torch.cat([part, part[-1:].expand(size - len(part), -1, -1, -1)])
            parts.append(self._run(part))
        return torch.cat(parts)[:count].to(input.device)

    def _run(self, input: Tensor) -> Tensor:
        pixels = input.permute(0, 2, 3, 1) if self.channels_last else input
        array = np.ascontiguousarray(pixels.cpu().numpy().astype(self.dtype))
        try:
            (found,) = self.session.run([self.output], {self.input: array})
        except Exception as exc:  # whatever onnxruntime raises
            raise WeightsError(
                f"{self.path.name} does not take pictures of {input.shape[-1]} px, though it says so: give it "
                f'others, or let {self.path.name}{CARD} say what it takes, such as {{"step": 32}} '
                f"({' '.join(str(exc).split())[:120]})"
            ) from exc
        return torch.from_numpy(np.asarray(found, dtype=np.float32))


class ProgramNetwork(nn.Module):
    """A program of torch.export: (N, 3, S, S) float -> what it puts out."""

    channels_last = False
    dtype = np.float32
    batch: int | None = None

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            program = torch.export.load(path)
            taken = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
            shape = taken[0].meta["val"].shape
        except Exception as exc:  # anything may come out of a file that is no program
            raise WeightsError(f"{path} is no exported program ({type(exc).__name__})") from exc
        if len(taken) != 1 or len(shape) != 4 or shape[1] != 3:
            raise WeightsError(f"{path} takes {[str(n) for n in shape]}; expected pictures (N, 3, H, W)")
        self.px = shape[2] if isinstance(shape[2], int) else None
        self.batch = shape[0] if isinstance(shape[0], int) else None
        self.program = program.module()

    def train(self, mode: bool = True) -> ProgramNetwork:
        """Nothing: a program is what it was exported as."""
        return self

    def forward(self, input: Tensor) -> Tensor:
        """(N, 3, S, S) -> its output for each."""
        count, size = len(input), self.batch or len(input)
        parts = []
        for first in range(0, count, size):
            part = input[first : first + size]
            short = size - len(part)
            if short:
                part = torch.cat([part, part[-1:].expand(short, -1, -1, -1)])
            parts.append(self.program(part))
        return torch.cat(parts)[:count]


class OutputReadout(nn.Module):
    """What of a program's output is the feature: (N, D), tokens (N, T, D) or a map (N, C, H, W) -> (N, dim)."""

    def __init__(self, network: OnnxNetwork | ProgramNetwork, readout: Readout) -> None:
        super().__init__()
        self.network = network
        self.readout = readout

    def forward(self, input: Tensor) -> Tensor:
        """(N, 3, S, S) -> (N, dim)."""
        found: Tensor = self.network(input)
        if self.readout == "mean over space":
            return found.mean((1, 2) if self.network.channels_last else (2, 3))
        if self.readout == "cls":
            return found[:, 0]
        return found


def _backbone(path: Path, body: OnnxNetwork | ProgramNetwork, said: dict[str, Any]) -> Backbone:
    px = int(body.px or said.get("px") or PX)
    mean, std, notes = normalisation(path, body, said)
    with torch.no_grad():
        probe = body(torch.zeros(1, 3, px, px))
    readout: Readout = said.get("readout") or ("mean over space" if probe.ndim == 4 else "features")
    if probe.ndim not in (2, 4) and not (probe.ndim == 3 and readout == "cls"):
        raise WeightsError(
            f"{path} puts out {tuple(probe.shape)} for one picture; expected (1, D), or a map of four axes; of tokens "
            f'(1, T, D), {path.name}{CARD} with {{"readout": "cls"}} takes the first'
        )
    network = OutputReadout(body, readout)
    with torch.no_grad():
        feature = network(torch.zeros(1, 3, px, px))
    if feature.ndim != 2:
        raise WeightsError(
            f"{path}: read-out {readout!r} gives {tuple(feature.shape)} for one picture; expected (1, D)"
        )
    card = EncoderCard(
        name=path.name,
        source=str(said.get("source") or f"file:{path.name}"),
        revision=said.get("revision"),
        licence=said.get("licence"),
        digest=program_digest(path),
        mpp=tuple(said["mpp"]) if said.get("mpp") else None,
        px=px,
        dim=feature.shape[1],
        readout=readout,
        mean=mean,
        std=std,
        least=int(said.get("least") or said.get("step") or 1),
        step=None if body.px else int(said.get("step") or 1),
        made=f"output {body.output}" if isinstance(body, OnnxNetwork) else "",
        notes=notes,
    )
    return Backbone(network, card)


def normalisation(
    path: Path, body: OnnxNetwork | ProgramNetwork, said: dict[str, Any]
) -> tuple[Colour, Colour, tuple[str, ...]]:
    """Mean and spread, of colours from 0 to 1, by which a program's pictures are normalised, and what is assumed."""
    if body.dtype is np.uint8:  # it takes pixels as they are
        return (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255), ()
    if "mean" in said and "std" in said:
        return tuple(said["mean"]), tuple(said["std"]), ()
    note = f"{path.name} does not say how its pictures are normalised: as ImageNet's; {path.name}{CARD} can say it"
    return *IMAGENET, (note,)


def said_beside(path: Path) -> dict[str, Any]:
    """What the file beside a program says of it."""
    beside = path.with_name(path.name + CARD)
    if not beside.is_file():
        return {}
    try:
        found = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError as exc:
        raise WeightsError(f"{beside} is no JSON: {exc}") from exc
    known = {"mean", "std", "mpp", "px", "least", "step", "readout", "licence", "source", "revision", "output"}
    if not isinstance(found, dict) or found.keys() - known:
        raise WeightsError(f"{beside} says {found}; expected values for some of {', '.join(sorted(known))}")
    return found


def _session(path: Path) -> Any:
    try:
        import onnxruntime
    except Exception as exc:  # whatever a broken package raises
        missing = isinstance(exc, ModuleNotFoundError)
        remedy = from_folder("onnx") if missing else "pip install --force-reinstall onnxruntime"
        raise ImportError(
            f"{path} needs onnxruntime, which cannot be imported ({' '.join(str(exc).split())}); install it"
            f"{'' if missing else ' again'}: {remedy}"
        ) from exc
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, too
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # whatever onnxruntime raises
        raise WeightsError(f"{path} cannot be run as ONNX ({' '.join(str(exc).split())[:300]})") from exc


def program_digest(path: Path) -> str:
    """SHA-256 of a program and of the files that it keeps its weights in."""
    program = path.read_bytes()
    sha = hashlib.sha256(program)
    if path.suffix.lower() == ".onnx":
        # each tensor outside says ("location", FILE), as two strings of a protobuf
        found = re.finditer(rb"\n\x08location\x12([\x01-\x7f])", program)
        places = {program[place.end() : place.end() + place[1][0]] for place in found}
        for place in sorted(places):
            with (path.parent / place.decode()).open("rb") as file:
                while block := file.read(2**24):
                    sha.update(block)
    return sha.hexdigest()


def _names(values: list[Any]) -> str:
    return ", ".join(value.name for value in values)
