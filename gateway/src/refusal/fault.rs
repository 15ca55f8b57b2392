//! What can be wrong with a request's head or framing.
//!
//! Owns the list, with the code and the words of each. Must never repeat anything a client sent.

/// What is wrong with the head of a request, or with how its body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A line ends without CR LF, or a CR stands alone.
    LineEnding,
    /// The request line is not `method SP target SP version`.
    RequestLine,
    /// A field is folded over several lines.
    FoldedField,
    /// A field name is empty, has a byte that is no token, or white space before its colon.
    FieldName,
    /// A field value has a control byte.
    FieldValue,
    /// `Content-Length` together with `Transfer-Encoding`.
    LengthAndEncoding,
    /// `Content-Length` is repeated or is not a plain number.
    ContentLength,
    /// `Transfer-Encoding` is anything but exactly `chunked`.
    TransferEncoding,
    /// A chunk is not framed as one, has an extension, or is followed by trailers.
    Chunk,
    /// No `Host`.
    HostMissing,
    /// More than one `Host`.
    HostRepeated,
    /// `Host` is not a plain host name or address with an optional port.
    HostInvalid,
    /// The target or `:authority` names another host than `Host`.
    HostMismatch,
    /// The target is neither a path nor a URL of this server.
    Target,
    /// The path has more than one reading.
    Path,
    /// A field would overrule the method or the target that were decided on.
    Overruled,
    /// The body ended early or could not be read.
    Body,
    /// The body is not the one that was signed.
    BodyAltered,
}

impl Fault {
    /// Code in problem documents and records.
    pub fn code(self) -> &'static str {
        match self {
            Self::LineEnding => "bad_line_ending",
            Self::RequestLine => "bad_request_line",
            Self::FoldedField => "folded_field",
            Self::FieldName => "bad_field_name",
            Self::FieldValue => "bad_field_value",
            Self::LengthAndEncoding => "length_and_encoding",
            Self::ContentLength => "bad_content_length",
            Self::TransferEncoding => "bad_transfer_encoding",
            Self::Chunk => "bad_chunk",
            Self::HostMissing => "host_missing",
            Self::HostRepeated => "host_repeated",
            Self::HostInvalid => "host_invalid",
            Self::HostMismatch => "host_mismatch",
            Self::Target => "bad_target",
            Self::Path => "ambiguous_path",
            Self::Overruled => "overruled",
            Self::Body => "bad_body",
            Self::BodyAltered => "body_altered",
        }
    }

    pub(super) fn detail(self) -> &'static str {
        match self {
            Self::LineEnding => "every line of the head must end in CR LF, and CR stands nowhere else",
            Self::RequestLine => "the request line must be a method, a target and a version, one space apart",
            Self::FoldedField => "a field must not be folded over several lines",
            Self::FieldName => "a field name must be a token followed at once by a colon",
            Self::FieldValue => "a field value must not hold control bytes",
            Self::LengthAndEncoding => "content-length and transfer-encoding must not come together",
            Self::ContentLength => "content-length must come once and be a plain number",
            Self::TransferEncoding => "transfer-encoding must come once and be exactly `chunked`",
            Self::Chunk => "the chunked body is malformed, or uses extensions or trailers",
            Self::HostMissing => "the request must name its host",
            Self::HostRepeated => "the request must name its host once",
            Self::HostInvalid => "the host must be a plain name or address with an optional port",
            Self::HostMismatch => "the target and the host field must name the same host",
            Self::Target => "the target must be a path, or a URL of this server",
            Self::Path => {
                "the path must be in its one plain form: no dot segments, double slashes, encoded separators \
                 or control bytes"
            }
            Self::Overruled => "no field may name another method or target than the request line does",
            Self::Body => "the request body ended early or could not be read",
            Self::BodyAltered => "the request body is not the one that was signed",
        }
    }
}
