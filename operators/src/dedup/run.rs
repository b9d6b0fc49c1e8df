//! A sorted file of digests with an in-memory filter in front.
//!
//! A digest that is not in the file costs one cache miss 998 times in 1,000; one that is, or seems
//! to be, costs one read of 4 KiB. In memory stay two bytes a digest for the filter and eight bytes
//! per 256 digests for the index.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
};

use super::{Digest, TAG};

/// Digests per index entry, and per read.
const BLOCK: usize = 256;
const DIGEST_BYTES: usize = size_of::<Digest>();
/// Digests per 64-byte filter block: 16 bits each.
const PER_FILTER_BLOCK: u64 = 32;

/// Digests moved out of memory.
pub(super) struct Run {
    file: File,
    len: usize,
    /// Upper half of the first digest of each block.
    index: Vec<u64>,
    filter: Vec<[u64; 8]>,
    /// Pane of the newest digest: the run is forgotten with it.
    pub newest: i64,
    /// How many rounds of merging are behind it.
    pub level: u32,
}

impl Run {
    /// Writes digests that come in ascending order. The file must be empty.
    pub fn write(
        digests: impl Iterator<Item = io::Result<Digest>>,
        newest: i64,
        level: u32,
        file: File,
    ) -> io::Result<Self> {
        let mut out = BufWriter::with_capacity(1 << 16, file);
        let (mut index, mut len) = (Vec::new(), 0usize);
        for digest in digests {
            let digest = digest?;
            if len.is_multiple_of(BLOCK) {
                index.push(upper(digest));
            }
            out.write_all(&digest.to_be_bytes())?;
            len += 1;
        }
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        let blocks = (len as u64).div_ceil(PER_FILTER_BLOCK).max(1);
        let mut run = Self { file, len, index, filter: vec![[0; 8]; blocks as usize], newest, level };
        // The filter's size depends on how many digests a merge leaves, so it is filled afterwards.
        let mut filter = std::mem::take(&mut run.filter);
        for digest in run.digests()? {
            let digest = digest?;
            let block = block_of(digest, filter.len());
            for (word, bit) in filter[block].iter_mut().zip(bits(digest)) {
                *word |= bit;
            }
        }
        run.filter = filter;
        Ok(run)
    }

    /// False only if the digest is not in the file.
    #[inline]
    pub fn may_hold(&self, digest: Digest) -> bool {
        let block = &self.filter[block_of(digest, self.filter.len())];
        block.iter().zip(bits(digest)).all(|(word, bit)| word & bit != 0)
    }

    /// The digest in the file that differs from this one by its tag at most.
    pub fn find(&self, digest: Digest) -> io::Result<Option<Digest>> {
        if !self.may_hold(digest) {
            return Ok(None);
        }
        // The last block that begins below the digest; equal upper halves may begin one block early.
        let mut block = self.index.partition_point(|first| *first < upper(digest)).saturating_sub(1);
        let mut bytes = [0u8; BLOCK * DIGEST_BYTES];
        while block < self.index.len() && self.index[block] <= upper(digest) {
            let start = block * BLOCK;
            let bytes = &mut bytes[..(self.len - start).min(BLOCK) * DIGEST_BYTES];
            self.file.read_exact_at(bytes, (start * DIGEST_BYTES) as u64)?;
            let (digests, _) = bytes.as_chunks::<DIGEST_BYTES>();
            let at = digests.partition_point(|found| Digest::from_be_bytes(*found) & !TAG < digest);
            if let Some(found) = digests.get(at).map(|found| Digest::from_be_bytes(*found)) {
                return Ok((found & !TAG == digest).then_some(found));
            }
            block += 1;
        }
        Ok(None)
    }

    /// All digests in order.
    fn digests(&self) -> io::Result<Digests> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        Ok(Digests { reader: BufReader::with_capacity(1 << 16, file), left: self.len })
    }
}

/// The digests of several runs in one order. Of digests that differ by their tag alone the newest
/// stay too: expiry tells them apart.
///
/// The runs share nothing but must not be read otherwise meanwhile.
pub(super) fn merge(runs: &[Run]) -> io::Result<impl Iterator<Item = io::Result<Digest>>> {
    let mut sources = runs.iter().map(Run::digests).collect::<io::Result<Vec<_>>>()?;
    let mut heads = BinaryHeap::new();
    for (source, digests) in sources.iter_mut().enumerate() {
        if let Some(first) = digests.next() {
            heads.push(Reverse((first?, source)));
        }
    }
    Ok(std::iter::from_fn(move || {
        let mut head = heads.peek_mut()?;
        let Reverse((digest, source)) = *head;
        match sources[source].next() {
            Some(Ok(next)) => *head = Reverse((next, source)),
            Some(Err(error)) => return Some(Err(error)),
            None => drop(PeekMut::pop(head)),
        }
        Some(Ok(digest))
    }))
}

struct Digests {
    reader: BufReader<File>,
    left: usize,
}

impl Iterator for Digests {
    type Item = io::Result<Digest>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let mut bytes = [0; DIGEST_BYTES];
        Some(self.reader.read_exact(&mut bytes).map(|()| Digest::from_be_bytes(bytes)))
    }
}

fn upper(digest: Digest) -> u64 {
    (digest >> 64) as u64
}

/// The filter block of a digest, by its upper half.
#[inline]
fn block_of(digest: Digest, blocks: usize) -> usize {
    ((u128::from(upper(digest)) * blocks as u128) >> 64) as usize
}

/// One bit for each word of a filter block, by the digest's lower half without the tag.
#[inline]
fn bits(digest: Digest) -> [u64; 8] {
    let lower = (digest >> 8) as u64;
    std::array::from_fn(|word| 1 << (lower >> (6 * word) & 63))
}
