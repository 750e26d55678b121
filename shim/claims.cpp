#include "shim/claims.h"

#include <algorithm>
#include <utility>

#include "shim/open_file.h"
#include "stack/mem/arena.h"

namespace ustack::shim {

void Claims::add(OpenFile& file) {
  if (auto free = std::ranges::find(files_, nullptr); free != files_.end()) *free = &file;
}

void Claims::remove(OpenFile& file) {
  if (auto place = std::ranges::find(files_, &file); place != files_.end()) *place = nullptr;
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
  for (OpenFile*& file : files_) let_go(std::exchange(file, nullptr));
  for (size_t i = 0; i < polled_count_; ++i) let_go(polled_[i]);
  if (memory_ != nullptr) arena.release(memory_, bytes_);
  clear_polled();
}

}  // namespace ustack::shim
