"""Wire formats: how arguments and results become bytes, and how the bytes find their format again."""

from taskharbor.codec.book import CodecBook, found_codec
from taskharbor.codec.codec import Codec, CodecError, Encode, LackError
from taskharbor.codec.concealing import Concealing, concealed, conceals
from taskharbor.codec.formats import JsonCodec, MsgpackCodec
from taskharbor.codec.guard import checked_codec, decoder_of, encoder_of
from taskharbor.codec.hooks import TypeHook, hook_for, register_type
from taskharbor.codec.lists import join, split
from taskharbor.codec.wrapping import Marked, WrappingCodec, bare, rewrapped, wrapped

__all__ = [
    "Codec",
    "CodecBook",
    "CodecError",
    "Concealing",
    "Encode",
    "JsonCodec",
    "LackError",
    "Marked",
    "MsgpackCodec",
    "TypeHook",
    "WrappingCodec",
    "bare",
    "checked_codec",
    "concealed",
    "conceals",
    "decoder_of",
    "encoder_of",
    "found_codec",
    "hook_for",
    "join",
    "register_type",
    "rewrapped",
    "split",
    "wrapped",
]
