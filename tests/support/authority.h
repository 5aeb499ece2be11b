// Authority: a certificate authority of a test's own. Everything lies as PEM files in a directory,
// as servers and clients want it.
#pragma once

#include <memory>
#include <string>
#include <vector>

namespace conclave::testing {

class Authority {
 public:
  struct Leaf {
    std::string name;  // common name, and that of the files
    std::vector<std::string> hosts = {"localhost", "127.0.0.1"};  // names and addresses
    bool expired = false;
  };
  struct Files {
    std::string cert;
    std::string key;
  };

  // `name` tells authorities apart: their files, and who they are.
  Authority(std::string directory, const std::string& name);
  ~Authority();
  Authority(const Authority&) = delete;
  Authority& operator=(const Authority&) = delete;

  const std::string& ca_file() const { return ca_file_; }
  // Replaces files of the same name, each in one step.
  Files Issue(const Leaf& leaf);
  // The list of all that have been revoked.
  const std::string& crl_file() const { return crl_file_; }
  void Revoke(const Files& files);

 private:
  struct Identity;
  const std::string directory_;
  const std::string ca_file_;
  const std::string crl_file_;
  std::unique_ptr<Identity> identity_;
};

}  // namespace conclave::testing
