#include "shim/open_file.h"

#include "shim/epoll_set.h"
#include "shim/file_step.h"
#include "shim/shared_host.h"

namespace ustack::shim {

OpenFile::OpenFile(Kind kind) : kind_(kind) {}
OpenFile::~OpenFile() = default;

void OpenFile::enlist() {
  FileStep::begin(this, 0, nullptr);
  if (shared_host != nullptr) shared_host->files.push_back(*this);
}

void OpenFile::release() {
  if (--references_ > 0) {
    if (references_ == end_count_) [[unlikely]]
      left_to_ends();
    return;
  }
  close_for_good();
}

void OpenFile::close_for_good() {
  EpollSet::forget(*this);
  close();
}

}  // namespace ustack::shim
