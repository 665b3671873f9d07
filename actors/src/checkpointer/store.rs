//! The checkpoint store: which volumes there are, and the manifest that names them.

use std::collections::BTreeSet;
use std::time::Instant;

use bytes::Bytes;

use super::StoreError;
use super::core::{Extent, Limits, Plan, Span, plan};
use super::manifest::{self, Manifest};
use super::messages::{
    CheckpointStore, LoadVisitor, LoadedMeta, Reclaim, RevisionKey, SealJob, Sealed,
};
use super::place::Place;
use super::volume::{self, Survey, VolumeEntry, VolumeWriter, Volumes};

/// Volumes of any kind, and the manifest that names them, in one directory of a disk. One
/// process at a time may have it open.
#[derive(Debug)]
pub(crate) struct VolumeStore {
    place: Place,
    volumes: Box<dyn Volumes>,
    limits: Limits,
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

impl VolumeStore {
    /// Opens the checkpoint at `place` (made if it is not there) and sweeps away what a
    /// crash left half done. Reads the manifest, but no volume yet.
    pub(crate) fn open(
        place: Place,
        volumes: Box<dyn Volumes>,
        limits: Limits,
    ) -> Result<Self, StoreError> {
        place.make()?;
        let manifest = manifest::read(&place)?;
        let mut store = Self {
            place,
            volumes,
            limits,
            manifest,
            manifest_bytes: 0,
            next_number: 1,
            #[cfg(test)]
            cut: super::tests::Cut::default(),
        };
        store.volumes.sweep()?;
        manifest::sweep(&store.place)?;
        let highest = store.volumes_on_disk()?.last().copied();
        let named = store.named().iter().map(|v| v.number).max();
        store.next_number = highest.max(named).unwrap_or(0) + 1;
        // Without a manifest nothing says that these volumes are rubbish: someone may have
        // lost the manifest. They go when the first seal is durable.
        if store.manifest.is_some() {
            // A process that died behind the rename may have left this manifest in memory only.
            // It must not be taken back once what it retired is gone, or a log was restarted
            // behind it.
            store.place.sync()?;
            store.manifest_bytes = manifest::length(&store.place)?;
            store.remove_unnamed()?;
        }
        Ok(store)
    }

    fn named(&self) -> &[VolumeEntry] {
        self.manifest.as_ref().map_or(&[], |m| &m.volumes)
    }

    fn clean_floor(&self) -> i64 {
        self.named().iter().map(|volume| volume.compact_revision).min().unwrap_or(i64::MAX)
    }

    fn volumes_on_disk(&self) -> Result<BTreeSet<u64>, StoreError> {
        let names = self.place.names()?;
        Ok(names.iter().filter_map(|name| volume::number_of(name)).collect())
    }

    fn remove_unnamed(&self) -> Result<(), StoreError> {
        let mut numbers = self.volumes_on_disk()?;
        for named in self.named() {
            numbers.remove(&named.number);
        }
        numbers.into_iter().try_for_each(|number| self.volumes.remove(number))
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
            .named()
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
        plan(&old, new, job.reclaim, self.limits)
    }

    /// Visits a span twice: to see how many volumes it takes, and to write them.
    fn write_span(
        &mut self,
        span: Span,
        job: &SealJob,
        written: &mut Vec<VolumeEntry>,
    ) -> Result<(), StoreError> {
        let mut surveys = survey(job, span, self.limits.volume_bytes)?.into_iter();
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
        VolumeWriter::begin(self.volumes.as_ref(), number, survey)
    }

    fn finish_volume(&mut self, writer: VolumeWriter) -> Result<VolumeEntry, StoreError> {
        let entry = writer.finish()?;
        self.reach(Step::VolumeWritten)?;
        self.volumes.read(&entry, &mut |_| Ok(()))?;
        self.reach(Step::VolumeVerified)?;
        Ok(entry)
    }

    /// Puts the next manifest in force: from here on the new copy is the sealed one.
    fn commit(&mut self, next: Manifest) -> Result<(), StoreError> {
        self.place.sync()?;
        self.reach(Step::VolumesNamedOnDisk)?;
        self.manifest_bytes = manifest::prepare(&self.place, &next)?;
        self.reach(Step::ManifestPrepared)?;
        manifest::put_in_force(&self.place)?;
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

impl CheckpointStore for VolumeStore {
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
            self.volumes.read(entry, &mut |b| visit(b.first, b.last, b.bytes))?;
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
        let retired = self.named().len() - plan.keep.len();
        let mut volumes: Vec<_> = plan.keep.iter().map(|&i| self.named()[i].clone()).collect();
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
            volumes: self.named().len(),
            volumes_written,
            volumes_retired: retired,
            disk_bytes: self.disk_bytes(),
            clean_floor: self.clean_floor(),
        })
    }

    fn disk_bytes(&self) -> u64 {
        self.named().iter().map(VolumeEntry::disk_bytes).sum::<u64>() + self.manifest_bytes
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
