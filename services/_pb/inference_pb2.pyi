from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetClientBundleRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FileChunk(_message.Message):
    __slots__ = ("name", "data")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    data: bytes
    def __init__(self, name: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class OpenUploadRequest(_message.Message):
    __slots__ = ("program_digest", "key_set")
    PROGRAM_DIGEST_FIELD_NUMBER: _ClassVar[int]
    KEY_SET_FIELD_NUMBER: _ClassVar[int]
    program_digest: str
    key_set: str
    def __init__(self, program_digest: _Optional[str] = ..., key_set: _Optional[str] = ...) -> None: ...

class UploadState(_message.Message):
    __slots__ = ("key_set", "complete", "ready", "partial")
    KEY_SET_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    key_set: str
    complete: _containers.RepeatedScalarFieldContainer[int]
    ready: bool
    partial: _containers.RepeatedCompositeFieldContainer[PartialKey]
    def __init__(self, key_set: _Optional[str] = ..., complete: _Optional[_Iterable[int]] = ..., ready: _Optional[bool] = ..., partial: _Optional[_Iterable[_Union[PartialKey, _Mapping]]] = ...) -> None: ...

class PartialKey(_message.Message):
    __slots__ = ("galois_element", "bytes", "sha256")
    GALOIS_ELEMENT_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    galois_element: int
    bytes: int
    sha256: bytes
    def __init__(self, galois_element: _Optional[int] = ..., bytes: _Optional[int] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class KeyChunk(_message.Message):
    __slots__ = ("key_set", "galois_element", "offset", "data")
    KEY_SET_FIELD_NUMBER: _ClassVar[int]
    GALOIS_ELEMENT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    key_set: str
    galois_element: int
    offset: int
    data: bytes
    def __init__(self, key_set: _Optional[str] = ..., galois_element: _Optional[int] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Ciphertext(_message.Message):
    __slots__ = ("name", "data")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    data: bytes
    def __init__(self, name: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class InferRequest(_message.Message):
    __slots__ = ("key_set", "program_digest", "bucket", "inputs")
    KEY_SET_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_DIGEST_FIELD_NUMBER: _ClassVar[int]
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    key_set: str
    program_digest: str
    bucket: int
    inputs: _containers.RepeatedCompositeFieldContainer[Ciphertext]
    def __init__(self, key_set: _Optional[str] = ..., program_digest: _Optional[str] = ..., bucket: _Optional[int] = ..., inputs: _Optional[_Iterable[_Union[Ciphertext, _Mapping]]] = ...) -> None: ...

class SelfTestRequest(_message.Message):
    __slots__ = ("key_set", "program_digest", "input")
    KEY_SET_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_DIGEST_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    key_set: str
    program_digest: str
    input: bytes
    def __init__(self, key_set: _Optional[str] = ..., program_digest: _Optional[str] = ..., input: _Optional[bytes] = ...) -> None: ...

class SelfTestResponse(_message.Message):
    __slots__ = ("rotations", "square")
    ROTATIONS_FIELD_NUMBER: _ClassVar[int]
    SQUARE_FIELD_NUMBER: _ClassVar[int]
    rotations: bytes
    square: bytes
    def __init__(self, rotations: _Optional[bytes] = ..., square: _Optional[bytes] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("done", "total")
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    done: int
    total: int
    def __init__(self, done: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class InferResult(_message.Message):
    __slots__ = ("outputs", "seconds")
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    outputs: _containers.RepeatedCompositeFieldContainer[Ciphertext]
    seconds: float
    def __init__(self, outputs: _Optional[_Iterable[_Union[Ciphertext, _Mapping]]] = ..., seconds: _Optional[float] = ...) -> None: ...

class InferEvent(_message.Message):
    __slots__ = ("progress", "result")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    progress: Progress
    result: InferResult
    def __init__(self, progress: _Optional[_Union[Progress, _Mapping]] = ..., result: _Optional[_Union[InferResult, _Mapping]] = ...) -> None: ...

class DeleteKeysRequest(_message.Message):
    __slots__ = ("key_set",)
    KEY_SET_FIELD_NUMBER: _ClassVar[int]
    key_set: str
    def __init__(self, key_set: _Optional[str] = ...) -> None: ...

class DeleteKeysResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
