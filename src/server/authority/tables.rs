//! What HPACK (RFC 7541) fixes for everyone: the static table and the Huffman code.

/// The header fields that every connection knows by number, from 1 on (appendix A).
pub(super) const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// The symbol that ends a text, which no text may contain.
pub(super) const END_OF_STRING: usize = 256;

/// The longest code, in bits.
pub(super) const CODE_BITS_MAX: usize = 30;

/// The Huffman code (appendix B). It is canonical: codes of one length count up in the
/// order of their symbols, and go on from the codes that are shorter, so the lengths
/// say everything.
pub(super) struct Code {
    /// The first code of each length.
    pub(super) first: [u32; CODE_BITS_MAX + 1],
    /// How many codes there are of each length.
    pub(super) count: [u32; CODE_BITS_MAX + 1],
    /// Where the symbols of each length start in `symbols`.
    pub(super) start: [usize; CODE_BITS_MAX + 1],
    /// All symbols, by length, then by value.
    pub(super) symbols: [usize; SYMBOLS],
}

const SYMBOLS: usize = END_OF_STRING + 1;

/// The one code there is.
pub(super) static CODE: Code = canonical(&LENGTHS);

const fn canonical(lengths: &[u8; SYMBOLS]) -> Code {
    const LENGTHS: usize = CODE_BITS_MAX + 1;
    let mut code = Code {
        first: [0; LENGTHS],
        count: [0; LENGTHS],
        start: [0; LENGTHS],
        symbols: [0; SYMBOLS],
    };
    let (mut next, mut known, mut length) = (0, 0, 1);
    while length <= CODE_BITS_MAX {
        code.first[length] = next;
        code.start[length] = known;
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if lengths[symbol] as usize == length {
                code.symbols[known] = symbol;
                known += 1;
            }
            symbol += 1;
        }
        code.count[length] = (known - code.start[length]) as u32;
        next = (next + code.count[length]) << 1;
        length += 1;
    }
    code
}

/// The bits that each symbol's code takes.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];
