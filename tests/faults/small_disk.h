// SmallDisk: a file system of its own over a member's data directory, with what was in there.
#pragma once

#include <memory>
#include <string>

namespace conclave::testing {

class SmallDisk {
 public:
  // `size`: as for tmpfs ("140m"). Null: nothing can be mounted here (it takes root).
  static std::unique_ptr<SmallDisk> Over(const std::string& directory, const std::string& size);
  ~SmallDisk();
  // As somebody else's file that takes all the room that is left, until it is deleted.
  void Fill();
  void Free();
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

 private:
  explicit SmallDisk(std::string directory);
  std::string Neighbour() const { return directory_ + "/neighbour"; }
  const std::string directory_;
};

}  // namespace conclave::testing
