#include "shim/claims.h"

#include <algorithm>
#include <utility>

#include "shim/file_step.h"
#include "shim/host_lock.h"
#include "shim/open_file.h"
#include "stack/mem/arena.h"

namespace ustack::shim {

void Claims::take(OpenFile& file) {
  CommonLock common;
  auto place = std::ranges::find_if(files_, [](auto& at) { return at.load() == nullptr; });
  if (place != files_.end()) FileStep::begin(&file, file.references(), &*place);
  file.reference();
  if (place == files_.end()) return;
  *place = &file;
  FileStep::end();
}

void Claims::give_back(OpenFile& file) {
  CommonLock common;
  auto place = std::ranges::find_if(files_, [&](auto& at) { return at.load() == &file; });
  if (place != files_.end()) {
    FileStep::begin(&file, file.references() - 1, &*place);
    *place = nullptr;
  }
  file.release();
  FileStep::end();
}

void Claims::set_polled(std::span<OpenFile* const> files, void* memory, size_t bytes) {
  polled_ = files.data();
  if (files.size() <= kFew) {
    std::ranges::copy(files, few_.begin());
    polled_ = few_.data();
  }
  polled_count_ = files.size();
  memory_ = memory;
  bytes_ = bytes;
}

void Claims::give_back(Arena& arena) {
  auto let_go = [this](OpenFile* file) {
    if (file == nullptr) return;
    file->end_turns(*this);
    file->release();
  };
  for (auto& file : files_) let_go(file.exchange(nullptr));
  for (size_t i = 0; i < polled_count_; ++i) let_go(polled_[i]);
  if (memory_ != nullptr) arena.release(memory_, bytes_);
  clear_polled();
  payload = Slice();
}

}  // namespace ustack::shim
