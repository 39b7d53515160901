"""Wire formats: how arguments and results become bytes, and how the bytes find their format again."""

from taskharbor.codec.book import CodecBook, checked_codec
from taskharbor.codec.codec import Codec, CodecError, Encode
from taskharbor.codec.formats import JsonCodec, MsgpackCodec
from taskharbor.codec.hooks import TypeHook, hook_for, register_type
from taskharbor.codec.lists import join, split

__all__ = [
    "Codec",
    "CodecBook",
    "CodecError",
    "Encode",
    "JsonCodec",
    "MsgpackCodec",
    "TypeHook",
    "checked_codec",
    "hook_for",
    "join",
    "register_type",
    "split",
]
