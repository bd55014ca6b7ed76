//! The `ar` archive around a package (deb(5), and ar(5) for the layout).

use super::DebError;

/// One member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its name, without the slash that some writers add.
    pub name: &'a str,
    /// Its bytes.
    pub bytes: &'a [u8],
}

const MAGIC: &[u8] = b"!<arch>\n";
/// name 16, date 12, owner 6, group 6, mode 8, size 10, end 2.
const HEADER: usize = 60;

/// The members of an archive, in order.
pub fn members(archive: &[u8]) -> Result<Vec<Member<'_>>, DebError> {
    let mut rest = archive.strip_prefix(MAGIC).ok_or(DebError::Format("it does not begin with `!<arch>`"))?;
    let mut members = Vec::new();
    while !rest.is_empty() {
        let (header, after) = rest.split_at_checked(HEADER).ok_or(DebError::Format("it ends too early"))?;
        let field = |from: usize, to: usize| std::str::from_utf8(&header[from..to]).map(str::trim_end);
        let (Ok(name), Ok(size), b"`\n") = (field(0, 16), field(48, 58), &header[58..]) else {
            return Err(DebError::Format("a header in it is damaged"));
        };
        let size: usize = size.parse().map_err(|_| DebError::Format("a header in it is damaged"))?;
        let (bytes, after) = after.split_at_checked(size).ok_or(DebError::Format("it ends too early"))?;
        members.push(Member { name: name.trim_end_matches('/'), bytes });
        // Members begin at even offsets.
        rest = after.get(size % 2..).unwrap_or_default();
    }
    Ok(members)
}
