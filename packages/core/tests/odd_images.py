"""About fifty image files of kinds found in data sets, and invalid files, each as bytes."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n0 0 8 8 rectfill\nshowpage\n%%EOF\n"
HEIGHT, WIDTH = 24, 40


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """Return the bytes of an image file."""
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def sample_image() -> Image.Image:
    """Return a smooth image without symmetries."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return Image.fromarray(np.stack([6 * x, 10 * y, 3 * (x + y)], -1).astype(np.uint8))


def deep(low: int = 300, high: int = 4300) -> np.ndarray:
    """Return 12-bit gray values in 16 bits."""
    return np.linspace(low, high, HEIGHT * WIDTH).round().astype(np.uint16).reshape(HEIGHT, WIDTH)


def png(values: np.ndarray, color: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a 16-bit PNG [H, W, C] of a color type: 0 gray, 2 RGB, 4 gray and alpha, 6 RGBA."""
    height, width = values.shape[:2]
    rows = values.astype(">u2").reshape(height, -1)
    head = struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = [(b"IHDR", head), *chunks, (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def tiff(
    values: np.ndarray, photometric: int, extra: tuple[int, ...] = (), *, planes: bool = False, packed: bool = False
) -> bytes:
    """Return a little-endian TIFF; values [H, W] or [H, W, C]; photometric 1 is gray, 2 RGB."""
    values = values[..., None] if values.ndim == 2 else values
    height, width, channels = values.shape
    layers = np.moveaxis(values, -1, 0) if planes else values[None]
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    strips = [layer.astype(values.dtype.newbyteorder("<")).tobytes() for layer in layers]
    strips = [zlib.compress(strip) for strip in strips] if packed else strips
    places = [8 + sum(map(len, strips[:row])) for row in range(len(strips))]
    tags = [
        (256, 4, [width]), (257, 4, [height]), (258, 3, [8 * values.itemsize] * channels),
        (259, 3, [8 if packed else 1]), (262, 3, [photometric]), (273, 4, places), (277, 3, [channels]),
        (278, 4, [height]), (279, 4, [len(strip) for strip in strips]), (284, 3, [2 if planes else 1]),
        *([(338, 3, list(extra))] if extra else []), (339, 3, [kind] * channels),
    ]  # fmt: skip
    start = 8 + sum(map(len, strips))
    after = start + 2 + 12 * len(tags) + 4
    entries, more = b"", b""
    for tag, size, numbers in tags:
        value = struct.pack("<" + {3: "H", 4: "I"}[size] * len(numbers), *numbers)
        if len(value) > 4:
            value, more = struct.pack("<I", after + len(more)), more + value
        entries += struct.pack("<HHI", tag, size, len(numbers)) + value.ljust(4, b"\0")
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", start) + b"".join(strips) + directory + more


def bomb() -> bytes:
    """Return a small PNG whose header declares 60,000 x 60,000 pixels."""
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", b"")


def _turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _animation(kind: str, mode: str = "RGB") -> bytes:
    frames = [sample_image().convert(mode), Image.new(mode, (WIDTH, HEIGHT))]
    return encode(frames[0], kind, save_all=True, append_images=frames[1:])


def readable_images() -> dict[str, bytes]:
    """Return files that must be readable, by name."""
    rgb = sample_image()
    gray, cmyk, palette = rgb.convert("L"), rgb.convert("CMYK"), rgb.quantize(64)
    clear = rgb.copy()
    clear.putalpha(gray)
    ramp = np.asarray(gray, np.float32)
    color = np.stack([deep(), deep(500, 2000), deep(4000, 300)], -1)
    alpha = np.full((HEIGHT, WIDTH, 1), 40_000, np.uint16)
    files = {
        "1.png": encode(rgb.convert("1")),
        "L.png": encode(gray),
        "LA.png": encode(clear.convert("LA")),
        "P.png": encode(palette),
        "P-transparent.png": encode(palette, transparency=3),
        "RGB.png": encode(rgb),
        "RGBA.png": encode(clear),
        "I16.png": encode(Image.fromarray(deep())),
        "I16-full.png": encode(Image.fromarray(deep(0, 65_535))),
        "I16-transparent.png": png(deep()[..., None], 0, (b"tRNS", struct.pack(">H", 300))),
        "RGB16.png": png(color, 2),
        "RGB16-full.png": png(color * np.uint16(15), 2),
        "LA16.png": png(np.concatenate([deep()[..., None], alpha], -1), 4),
        "RGBA16.png": png(np.concatenate([color, alpha], -1), 6),
        "animated.png": _animation("PNG"),
        "progressive.jpg": encode(rgb, "JPEG", progressive=True),
        "gray.jpg": encode(gray, "JPEG"),
        "cmyk.jpg": encode(cmyk, "JPEG"),
        "ycbcr.jpg": encode(rgb.convert("YCbCr"), "JPEG"),
        "wrong-name.jpg": encode(rgb),
        "damaged-exif.jpg": encode(rgb, "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff\x12\x01"),
        "P.gif": encode(palette, "GIF"),
        "animated.gif": _animation("GIF"),
        "RGB.webp": encode(rgb, "WEBP"),
        "RGBA.webp": encode(clear, "WEBP", lossless=True),
        "animated.webp": _animation("WEBP"),
        "RGB.jp2": encode(rgb, "JPEG2000"),
        "I16.jp2": encode(Image.fromarray(deep()), "JPEG2000"),
        "1.pbm": encode(rgb.convert("1"), "PPM"),
        "L.pgm": encode(gray, "PPM"),
        "I16.pgm": encode(Image.fromarray(deep()), "PPM"),
        "RGB.ppm": encode(rgb, "PPM"),
        "RGB.bmp": encode(rgb, "BMP"),
        "P.bmp": encode(palette, "BMP"),
        "RGB.tif": encode(rgb, "TIFF"),
        "RGB-packed.tif": encode(rgb, "TIFF", compression="tiff_lzw"),
        "pages.tif": _animation("TIFF"),
        "P.tif": encode(palette, "TIFF"),
        "CMYK.tif": encode(cmyk, "TIFF"),
        "LA.tif": encode(clear.convert("LA"), "TIFF"),
        "CIELAB.tif": encode(rgb.convert("LAB"), "TIFF"),
        "YCbCr.tif": encode(rgb.convert("YCbCr"), "TIFF", compression="jpeg"),
        "turned.tif": encode(rgb, "TIFF", exif=_turned(6)),
        "I16.tif": encode(Image.fromarray(deep()), "TIFF"),
        "I16B.tif": encode(Image.fromarray(deep().astype(">u2")), "TIFF"),
        "I16-signed.tif": tiff(deep().astype(np.int16) - np.int16(2000), 1),
        "I32.tif": encode(Image.fromarray(deep().astype(np.int32) + 70_000), "TIFF"),
        "RGB16.tif": tiff(color, 2),
        "RGBA16.tif": tiff(np.concatenate([color, alpha], -1), 2, (2,)),
        "F-unit.tif": encode(Image.fromarray(ramp / 255), "TIFF"),
        "F-255.tif": encode(Image.fromarray(ramp), "TIFF"),
        "F-own.tif": encode(Image.fromarray(ramp - 100), "TIFF"),
        "F-nan.tif": encode(Image.fromarray(np.where(ramp > 200, np.nan, ramp)), "TIFF"),
    }
    return files | {f"turned-{way}.jpg": encode(rgb, "JPEG", exif=_turned(way)) for way in range(1, 9)}


def refused_files() -> dict[str, tuple[bytes, str]]:
    """Return files that must be rejected, by name, each with a part of the error's reason."""
    rgb = sample_image()
    whole = encode(Image.effect_noise((64, 64), 50), "JPEG")
    five = np.stack([deep()] * 5, -1)
    gray_pages = encode(rgb.convert("L"), "TIFF", save_all=True, append_images=[rgb.convert("L")])
    return {
        "postscript.jpg": (POSTSCRIPT, "known format"),
        "postscript.tif": (POSTSCRIPT, "known format"),
        "document.png": (encode(rgb, "PDF"), "known format"),
        "empty.png": (b"", "known format"),
        "text.jpg": (b"plain text", "known format"),
        "icon.png": (encode(rgb, "ICO"), "known format"),
        "cut.jpg": (whole[:900], "truncated"),
        "cut.png": (encode(Image.effect_noise((64, 64), 50))[:2000], "truncated"),
        "bomb.png": (bomb(), "more than"),
        "bomb.ppm": (b"P6 4000000000 4000000000 255\n", "more than"),
        "F-none.tif": (encode(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"), "finite"),
        "2-channels.tif": (tiff(five[..., :2], 1, (0,)), "kind of TIFF"),
        "2-channels-8-bit.tif": (tiff(five[..., :2].astype(np.uint8), 1, (0,)), "got 2"),
        "4-gray.tif": (tiff(five[..., :4], 1, (0, 0, 0), planes=True, packed=True), "4 gray"),
        "5-planes.tif": (tiff(five, 1, (0, 0, 0, 0), planes=True, packed=True), "got 5"),
        "5-channels.tif": (tiff(five, 1, (0, 0, 0, 0)), "kind of TIFF"),
        "RGB-and-2.tif": (tiff(five.astype(np.uint8), 2, (0, 0)), "got 5"),
        "RGB16-planes.tif": (tiff(five[..., :3], 2, planes=True), "interleaved"),
        "gray-pages.tif": (gray_pages, "gray pages"),
    }
