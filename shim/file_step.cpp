#include "shim/file_step.h"

#include <utility>

#include "shim/open_file.h"

namespace ustack::shim {

void FileStep::begin(OpenFile* file, uint32_t base, const std::atomic<OpenFile*>* slot) {
  if (file_step == nullptr) return;
  end();
  file_step->slot_ = slot;
  file_step->base_ = base;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  file_step->file_ = file;
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

void FileStep::at(const OpenFile* file, const std::atomic<OpenFile*>* slot) {
  if (file_step == nullptr || file_step->file_ != file) return;
  file_step->slot_ = slot;
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

void FileStep::end() {
  if (file_step == nullptr) return;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  file_step->file_ = nullptr;
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

uint32_t FileStep::right_count(const OpenFile* file) const {
  const bool counted = slot_ != nullptr && slot_->load(std::memory_order_relaxed) == file;
  return base_ + (counted ? 1 : 0);
}

void FileStep::count_anew() {
  OpenFile* file = std::exchange(file_, nullptr);
  if (file != nullptr) file->mend_references(right_count(file));
}

void FileStep::finish() {
  OpenFile* file = std::exchange(file_, nullptr);
  if (file == nullptr) return;
  const uint32_t right = right_count(file);
  if (right == 0 && file->references() == 0) return file->close_for_good();
  for (uint32_t extra = file->references() - right; extra > 0 && file->references() > right; --extra)
    file->release();
}

}  // namespace ustack::shim
