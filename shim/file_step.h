// The one change of an open file's reference count that is under way: its number and what it counts can't be
// changed at once, and a process that is killed in between must neither lose a file (its peer would wait for
// ever) nor free it under another's hands.
#pragma once

#include <atomic>
#include <cstdint>

namespace ustack::shim {

class OpenFile;

/// Kept in the arena, beside the lock. Lock: the host's.
class FileStep {
 public:
  /// From here until end(): `file` has `base` references besides the one that `slot` (nullptr: nothing yet)
  /// stands for if it refers to the file. The slot is changed and the reference taken or given in any order.
  static void begin(OpenFile* file, uint32_t base, const std::atomic<OpenFile*>* slot);
  /// `file`'s step, if that is under way, has this slot.
  static void at(const OpenFile* file, const std::atomic<OpenFile*>* slot);
  static void end();

  /// After a process was killed in the middle of it: references that nothing stands for are given back, and
  /// what was being closed is.
  void finish();
  /// The same under what references alone are changed under: a file that nothing refers to any more is left
  /// to be closed, and who may do that finds it by its count.
  void count_anew();

 private:
  uint32_t right_count(const OpenFile* file) const;
  OpenFile* file_ = nullptr;
  const std::atomic<OpenFile*>* slot_ = nullptr;
  uint32_t base_ = 0;
};

/// The step of this process's host; nullptr: nowhere is it noted.
inline FileStep* file_step = nullptr;

}  // namespace ustack::shim
