//! The checkpoint store: volumes and the manifest that names them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;

use super::StoreError;
use super::core::{Extent, Limits, Plan, Span, plan};
use super::disk::sync_directory;
use super::manifest::{self, Manifest};
use super::messages::{
    CheckpointStore, LoadVisitor, LoadedMeta, Reclaim, RevisionKey, SealJob, Sealed,
};
use super::stage;
use super::volume::{self, Survey, VolumeEntry, VolumeWriter};

/// How a [`SledStore`] lays out and paces its writes.
#[derive(Clone, Debug)]
pub struct SledStoreOptions {
    /// Blocks' bytes in a full volume. A seal and a load hold about three times this in
    /// memory for a moment, beside the state itself.
    pub volume_bytes: u64,
    /// In a paced seal, at most so many live bytes are rewritten to free dead ones.
    pub rewrite_bytes: u64,
    /// A seal does not write to the disk faster than this, in bytes a second.
    pub bytes_per_second_max: u64,
}

impl Default for SledStoreOptions {
    fn default() -> Self {
        Self { volume_bytes: 16 << 20, rewrite_bytes: 64 << 20, bytes_per_second_max: 64 << 20 }
    }
}

/// A [`CheckpointStore`] on sled 0.34. One process at a time may have a directory open:
/// the caller holds the lock of the data directory.
#[derive(Debug)]
pub struct SledStore {
    dir: PathBuf,
    options: SledStoreOptions,
    /// What is in force on disk.
    manifest: Option<Manifest>,
    manifest_bytes: u64,
    next_number: u64,
    #[cfg(test)]
    pub(super) cut: super::tests::Cut,
}

/// The steps of a seal between which a test cuts it short.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    VolumeWritten,
    VolumeVerified,
    VolumesNamedOnDisk,
    ManifestPrepared,
    ManifestInForce,
    RetiredRemoved,
}

impl SledStore {
    /// Opens the checkpoint in `dir` (made if it is not there) and sweeps away what a
    /// crash left half done. Reads the manifest, but no volume yet: see
    /// [`load`](CheckpointStore::load).
    ///
    /// # Errors
    /// When the directory cannot be used, or the manifest is damaged or of a newer format.
    pub fn open(dir: &Path, options: SledStoreOptions) -> Result<Self, StoreError> {
        std::fs::create_dir_all(dir).map_err(StoreError::io("create", dir))?;
        let manifest = manifest::read(dir)?;
        let mut store = Self {
            dir: dir.to_owned(),
            options,
            manifest,
            manifest_bytes: 0,
            next_number: 1,
            #[cfg(test)]
            cut: super::tests::Cut::default(),
        };
        stage::sweep(dir)?;
        manifest::sweep(dir)?;
        let highest = store.volumes_on_disk()?.last().copied();
        let named = store.volumes().iter().map(|v| v.number).max();
        store.next_number = highest.max(named).unwrap_or(0) + 1;
        // Without a manifest nothing says that these volumes are rubbish: someone may have
        // lost the manifest. They go when the first seal is durable.
        if store.manifest.is_some() {
            store.manifest_bytes = store.measure_manifest()?;
            store.remove_unnamed()?;
        }
        Ok(store)
    }

    fn volumes(&self) -> &[VolumeEntry] {
        self.manifest.as_ref().map_or(&[], |m| &m.volumes)
    }

    fn clean_floor(&self) -> i64 {
        self.volumes().iter().map(|volume| volume.compact_revision).min().unwrap_or(i64::MAX)
    }

    fn volumes_on_disk(&self) -> Result<BTreeSet<u64>, StoreError> {
        let failed = |e| StoreError::io("list", &self.dir)(e);
        let mut numbers = BTreeSet::new();
        for entry in std::fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            numbers.extend(name.to_str().and_then(volume::number_of));
        }
        Ok(numbers)
    }

    fn remove_unnamed(&self) -> Result<(), StoreError> {
        let mut numbers = self.volumes_on_disk()?;
        for named in self.volumes() {
            numbers.remove(&named.number);
        }
        for number in numbers {
            let dir = volume::dir_of(&self.dir, number);
            std::fs::remove_dir_all(&dir).map_err(StoreError::io("remove", &dir))?;
        }
        Ok(())
    }

    fn measure_manifest(&self) -> Result<u64, StoreError> {
        let path = manifest::path_in(&self.dir);
        std::fs::metadata(&path).map(|m| m.len()).map_err(StoreError::io("look at", &path))
    }

    /// What comes after the sealed revisions.
    fn next_key(&self) -> RevisionKey {
        self.manifest.as_ref().map_or(RevisionKey::MIN, |m| m.last.successor())
    }

    fn check_job(&self, job: &SealJob) -> Result<(), StoreError> {
        let Some(sealed) = &self.manifest else { return Ok(()) };
        if job.applied_index >= sealed.applied_index && job.last >= sealed.last {
            return Ok(());
        }
        Err(StoreError::Caller(format!(
            "a seal at index {} and revision {} would go back behind the sealed index {} and \
             revision {}",
            job.applied_index, job.last, sealed.applied_index, sealed.last
        )))
    }

    fn plan(&self, job: &SealJob) -> Plan {
        if job.reclaim == Reclaim::Replace {
            let span = Span { from: RevisionKey::MIN, to: job.last };
            let lives = job.source.live_bytes(span.from, span.to) > 0;
            return Plan { keep: Vec::new(), spans: lives.then_some(span).into_iter().collect() };
        }
        let old: Vec<Extent> = self
            .volumes()
            .iter()
            .map(|volume| {
                let live_bytes = job.source.live_bytes(volume.from, volume.to);
                let (from, to, bytes) = (volume.from, volume.to, volume.block_bytes);
                let stale = volume.compact_revision < job.compact_revision;
                Extent { from, to, bytes, live_bytes, stale }
            })
            .collect();
        let from = self.next_key();
        let new_bytes = if from <= job.last { job.source.live_bytes(from, job.last) } else { 0 };
        let new = (new_bytes > 0).then_some(Extent {
            from,
            to: job.last,
            bytes: new_bytes,
            live_bytes: new_bytes,
            stale: false,
        });
        let SledStoreOptions { volume_bytes, rewrite_bytes, .. } = self.options;
        plan(&old, new, job.reclaim, Limits { volume_bytes, rewrite_bytes })
    }

    /// Visits a span twice: to see how many volumes it takes, and to write them.
    fn write_span(
        &mut self,
        span: Span,
        job: &SealJob,
        written: &mut Vec<VolumeEntry>,
    ) -> Result<(), StoreError> {
        let mut surveys = survey(job, span, self.options.volume_bytes)?.into_iter();
        let mut open: Option<VolumeWriter> = None;
        job.source.visit(span.from, span.to, &mut |first, last, bytes| {
            let mut writer = match (open.take(), &mut surveys) {
                (Some(writer), _) => writer,
                (None, surveys) => self.begin_volume(surveys.next())?,
            };
            writer.add(first, last, bytes)?;
            if writer.is_full() {
                written.push(self.finish_volume(writer)?);
            } else {
                open = Some(writer);
            }
            Ok(())
        })?;
        match (open, surveys.next()) {
            (None, None) => Ok(()),
            // It is short of blocks, and says so.
            (Some(writer), _) => self.finish_volume(writer).map(|entry| written.push(entry)),
            (None, Some(survey)) => Err(volume::view_changed(&survey, 0)),
        }
    }

    fn begin_volume(&mut self, survey: Option<Survey>) -> Result<VolumeWriter, StoreError> {
        let survey =
            survey.ok_or_else(|| StoreError::Caller("the view grew during a seal".to_owned()))?;
        let number = self.next_number;
        self.next_number += 1;
        VolumeWriter::begin(&self.dir, number, survey)
    }

    fn finish_volume(&mut self, writer: VolumeWriter) -> Result<VolumeEntry, StoreError> {
        let entry = writer.finish(self.options.bytes_per_second_max)?;
        self.reach(Step::VolumeWritten)?;
        volume::read(&self.dir, &entry, &mut |_| Ok(()))?;
        self.reach(Step::VolumeVerified)?;
        Ok(entry)
    }

    /// Puts the next manifest in force: from here on the new copy is the sealed one.
    fn commit(&mut self, next: Manifest) -> Result<(), StoreError> {
        sync_directory(&self.dir)?;
        self.reach(Step::VolumesNamedOnDisk)?;
        self.manifest_bytes = manifest::prepare(&self.dir, &next)?;
        self.reach(Step::ManifestPrepared)?;
        manifest::put_in_force(&self.dir)?;
        self.manifest = Some(next);
        self.reach(Step::ManifestInForce)
    }

    #[cfg(test)]
    fn reach(&mut self, step: Step) -> Result<(), StoreError> {
        self.cut.reach(step)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "a test cuts seals here")]
    fn reach(&mut self, _step: Step) -> Result<(), StoreError> {
        Ok(())
    }
}

impl CheckpointStore for SledStore {
    fn sealed(&self) -> Option<LoadedMeta> {
        self.manifest.as_ref().map(|manifest| LoadedMeta {
            applied_index: manifest.applied_index,
            applied_term: manifest.applied_term,
            last: manifest.last,
            meta: Bytes::copy_from_slice(&manifest.meta),
            clean_floor: self.clean_floor(),
        })
    }

    fn load(&mut self, visit: LoadVisitor<'_>) -> Result<Option<LoadedMeta>, StoreError> {
        let Some(manifest) = &self.manifest else { return Ok(None) };
        for entry in &manifest.volumes {
            volume::read(&self.dir, entry, &mut |b| visit(b.first, b.last, b.bytes))?;
        }
        Ok(self.sealed())
    }

    fn seal(&mut self, job: &SealJob) -> Result<Sealed, StoreError> {
        let started = Instant::now();
        self.check_job(job)?;
        let plan = self.plan(job);
        let mut written = Vec::new();
        for span in &plan.spans {
            self.write_span(*span, job, &mut written)?;
        }
        let volumes_written = written.len();
        let volume_bytes: u64 = written.iter().map(VolumeEntry::disk_bytes).sum();
        let retired = self.volumes().len() - plan.keep.len();
        let mut volumes: Vec<_> = plan.keep.iter().map(|&i| self.volumes()[i].clone()).collect();
        volumes.extend(written);
        volumes.sort_by_key(|volume| volume.from);
        self.commit(Manifest {
            applied_index: job.applied_index,
            applied_term: job.applied_term,
            last: job.last,
            volumes,
            meta: job.meta.to_vec(),
        })?;
        let took = started.elapsed();
        self.remove_unnamed()?;
        self.reach(Step::RetiredRemoved)?;
        Ok(Sealed {
            applied_index: job.applied_index,
            applied_term: job.applied_term,
            bytes_written: volume_bytes + self.manifest_bytes,
            took,
            volumes: self.volumes().len(),
            volumes_written,
            volumes_retired: retired,
            disk_bytes: self.disk_bytes(),
            clean_floor: self.clean_floor(),
        })
    }

    fn disk_bytes(&self) -> u64 {
        self.volumes().iter().map(VolumeEntry::disk_bytes).sum::<u64>() + self.manifest_bytes
    }
}

/// Visits a span once and cuts it into volumes: full ones, and what is left. Nothing where
/// nothing lives. Together the volumes cover the span up to its last live revision.
fn survey(job: &SealJob, span: Span, volume_bytes: u64) -> Result<Vec<Survey>, StoreError> {
    let mut surveys: Vec<Survey> = Vec::new();
    let mut end: Option<RevisionKey> = None;
    job.source.visit(span.from, span.to, &mut |first, last, bytes| {
        let in_span = span.from <= first && first <= last && last <= span.to;
        if !in_span || end.is_some_and(|end| first <= end) {
            return Err(StoreError::Caller(format!(
                "block {first}..={last} is out of place in {}..={}",
                span.from, span.to
            )));
        }
        let full = surveys.last().is_none_or(|s| {
            s.pieces > 0 && s.block_bytes.saturating_add(bytes.len() as u64) > volume_bytes
        });
        if full {
            let from = end.map_or(span.from, RevisionKey::successor);
            surveys.push(Survey::begin(from, job.compact_revision));
        }
        if let Some(survey) = surveys.last_mut() {
            survey.count(last, bytes.len());
        }
        end = Some(last);
        Ok(())
    })?;
    Ok(surveys)
}
